"""Attention heads and MLP blocks of a language model as players: the game `components`."""
