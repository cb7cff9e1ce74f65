"""The paper's published numbers (CSV), and what follows from them."""
