"""What explaining costs production on the model server that both use."""
