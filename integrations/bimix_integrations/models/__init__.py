"""What a model of PyTorch is: how large, with its embeddings and without."""
