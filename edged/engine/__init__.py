"""The engine process: it alone imports llama_cpp. The daemon sees `messages`, `channel` and `client`."""
