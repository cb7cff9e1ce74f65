"""Checkpoints, Hugging Face exports, and where a run resumes."""
