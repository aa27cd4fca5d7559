"""Mode and Laplace posterior without any array of the size (neuron, neuron) or (coordinate, coordinate).

In the coordinates theta = (M, A, B, b, E of every neuron; a few shared ones) the information of a recording is a block
for every neuron and a part of low rank,

    F = blockdiag(D_n) + Y diag(tau) Y^T,

and everything that a posterior has to answer follows from this form in time and memory linear in the number of neurons.
"""
