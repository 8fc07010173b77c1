"""Ollama: its runner is llama.cpp, so only what it adds lives here."""
