"""Checkpoints to score: exports of this project and models of transformers, with their tokenizers."""
