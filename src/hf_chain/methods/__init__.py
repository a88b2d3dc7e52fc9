"""The methods: each a sequence of steps that trains something small first and hands its knowledge on."""
