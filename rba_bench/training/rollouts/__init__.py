"""Where samples of the policy come from: the engine in this process, or a vLLM server beside it."""
