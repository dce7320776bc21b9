/* The smallest program that a C library starts. */
int main(void) {
    return 0;
}
