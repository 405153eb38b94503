"""How fast this machine runs a model, beside what the machine could do: `awq-ref bench`.

command         its options, and what it prints
job             what is to be measured, checked
predict         bytes of a token and of a process, from shapes alone
limits          what this machine can do: bandwidth, products, the passes of a packed product
passes          from these constants to any number of threads: a model of the packed product
random_model    a decoder of random codes, made in memory
watch           where the time goes: by layer and by operation
measure         one residency, in a process of its own
run             all of it, a process after the other
tables          the result as Markdown
plot            the result under a roof

Every time that is printed was measured in a process that does nothing else; docs/performance.md.
"""
