"""Where documents and benchmark rows come from: the Hub, local files, Software Heritage."""
