"""Any OpenAI-compatible server: addresses, keys, requests, replies, failures, and the text LLM behind it."""
