"""Tokenizers of models, from files on the disk: one library a module."""
