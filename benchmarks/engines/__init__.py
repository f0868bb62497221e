"""The engines that compare.py runs, each in processes of its own."""
