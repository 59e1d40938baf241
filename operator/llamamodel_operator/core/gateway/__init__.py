"""What the gateway knows: names and their models, and llama.cpp's errors in OpenAI's form."""
