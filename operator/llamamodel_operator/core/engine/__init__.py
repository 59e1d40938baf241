"""What llama-server is: its command line."""
