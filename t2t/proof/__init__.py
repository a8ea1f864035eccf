"""
Proven by running: record what TensorFlow computes, and compare what the torch module makes of the same inputs.
"""
