// code ID CODE: a program that is as short as can be.
#include <stdlib.h>

int main(int argc, char **argv) { return argc > 2 ? atoi(argv[2]) : 0; }
