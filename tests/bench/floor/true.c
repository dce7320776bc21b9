/* The smallest handler, and the smallest program: ends with 0, without any library. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov $231,%eax\nxor %edi,%edi\nsyscall\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x8,#94\nmov x0,#0\nsvc #0\n");
#elif defined(__arm__)
__asm__(".globl _start\n_start: mov r7,#248\nmov r0,#0\nsvc #0\n");
#endif
