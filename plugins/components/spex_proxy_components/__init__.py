"""Attention heads and MLP blocks of a Hugging Face causal language model as players."""
