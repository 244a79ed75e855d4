"""What is concluded from the draws of a design."""
