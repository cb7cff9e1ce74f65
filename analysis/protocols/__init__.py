"""The paper's protocols: correlations, matrices, noise, decisions."""
