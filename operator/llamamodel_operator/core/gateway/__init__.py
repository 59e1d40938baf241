"""What the gateway decides without any input or output: what names mean, who takes a request, what errors say."""
