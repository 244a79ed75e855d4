"""What is concluded from draws."""
