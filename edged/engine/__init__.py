"""The engine process: it alone imports llama_cpp. The daemon sees `client`, `messages` and `exit_code`."""
