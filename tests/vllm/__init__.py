"""Tests of the engine of vLLM, which has an environment of its own: `make test-vllm`."""
