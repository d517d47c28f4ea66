"""Learn from feedback: fold the events of the log into states, and publish the states.

May import store, softmax, process, settings and errors; commands/ uses it.
"""
