/* A child that only sleeps, without any library. Supervisors keep it running here. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov $34,%eax\nsyscall\njmp _start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x8,#73\nmov x0,#0\nmov x1,#0\nmov x2,#0\nmov x3,#0\nmov x4,#0\nsvc #0\nb _start\n");
#elif defined(__arm__)
__asm__(".globl _start\n_start: mov r7,#29\nsvc #0\nb _start\n");
#endif
