"""What a llama-server takes, per GPU and on the host, in llama.cpp's own bytes."""
