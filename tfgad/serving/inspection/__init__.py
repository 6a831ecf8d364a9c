"""The inspection page: verdicts, heat maps and reconstructions of images in a browser."""
