#!/bin/sh
# Compiles process.bpf.c. The objects are committed, so that nobody needs a compiler
# to build the daemon; they are compared byte for byte, so it must be this one.
set -eu
cc=clang-14 strip=llvm-strip-14
if ! command -v $cc $strip >/dev/null; then
	echo "the eBPF objects stay as they are: to compile them, install clang-14, llvm-14 and libbpf-dev" >&2
	exit 0
fi
# asm/types.h is where each distribution wants it to be.
include="/usr/include/$(uname -m)-linux-gnu"
exec go run github.com/cilium/ebpf/cmd/bpf2go -cc $cc -strip $strip -go-package kernel -tags linux -target amd64,arm64 \
	-type head -type image -type fork_record -type exec_record -type exit_record -no-global-types \
	process bpf/process.bpf.c -- -Wall -Werror -I"$include"
