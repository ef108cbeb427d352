"""What is fast, what is right under load, and how we know. Every program prints JSON lines."""
