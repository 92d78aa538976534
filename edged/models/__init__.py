"""A folder of model files: brought whole and verified, listed, chosen, removed. The command line's process.

`fetch` brings a file from a URL or another folder, `quantising` makes a smaller one of it, `shelf` keeps what is
there. The daemon knows none of them: it loads the file that its settings name, which may be the shelf's link
`current.gguf`.
"""
