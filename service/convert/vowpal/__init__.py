"""Read the readable models of Vowpal Wabbit, and ask Vowpal Wabbit itself for their probabilities.

May import `service/convert/converted_model.py`, `fields/` and the rows below it.
"""
