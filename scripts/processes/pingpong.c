// Ping-pong of two processes in plain MPI: a message to and an answer of one byte, as examples/processes.rs. Prints bytes and the
// least seconds of each size.
//   mpicc -O2 -o pingpong pingpong.c && mpirun -np 2 pingpong
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const long sizes[] = {1, 4 << 10, 256 << 10, 4 << 20, 64 << 20};
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    char *buffer = malloc(sizes[4]), answer = 1;
    for (int k = 0; k < 5; k++) {
        double least = 1e9;
        for (int repetition = 0; repetition < 9; repetition++) {
            for (long i = 0; rank == 0 && i < sizes[k]; i += 4096) buffer[i] = 1;
            double begin = MPI_Wtime();
            if (rank == 0) {
                MPI_Send(buffer, (int)sizes[k], MPI_BYTE, 1, 0, MPI_COMM_WORLD);
                MPI_Recv(&answer, 1, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            } else {
                MPI_Recv(buffer, (int)sizes[k], MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
                MPI_Send(&answer, 1, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
            }
            double seconds = MPI_Wtime() - begin;
            if (seconds < least) least = seconds;
        }
        if (rank == 0) printf("%ld %.9f\n", sizes[k], least);
    }
    MPI_Finalize();
    return 0;
}
