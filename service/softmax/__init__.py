"""What is computed: the arithmetic of softmax models, on plain arrays; it knows no clock, file or socket."""
