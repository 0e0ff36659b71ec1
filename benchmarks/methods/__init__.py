"""What the methods gain, on real images."""
