"""Which tokens a run trains on: the exact blend of sources, its order and its supply."""
