"""Who scores: workers, their queue, and the parts that survive a kill."""
