"""`python -m tqt_onnx` is the command `tqt-onnx`."""

from .cli import main

if __name__ == "__main__":
    main()
