"""A child process that ends with its parent: `python -m edged.demo.child run ...` is `edged run ...` bound so.

The demo ends its children itself; this is for the demo that is killed and cannot.
"""

import signal
import sys

from edged.child import end_with_parent

if __name__ == "__main__":
    from edged.cli import main

    end_with_parent(signal.SIGTERM)
    main(sys.argv[1:])
