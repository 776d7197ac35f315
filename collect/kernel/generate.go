package kernel

//go:generate bpf/generate.sh
