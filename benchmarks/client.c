/* What is possible: consume with multiple acks, and publish with confirms, on librabbitmq. The body is not parsed.

   cc -O2 -o client client.c -lrabbitmq
   client consume HOST PORT USER PASSWORD VHOST QUEUE COUNT PREFETCH
   client publish HOST PORT USER PASSWORD VHOST EXCHANGE COUNT IN_FLIGHT
*/
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static void check(int ok, const char *what) {
    if (!ok) { fprintf(stderr, "%s failed\n", what); exit(1); }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(struct rusage *usage) {
    getrusage(RUSAGE_SELF, usage);
    return usage->ru_utime.tv_sec + usage->ru_utime.tv_usec / 1e6 + usage->ru_stime.tv_sec + usage->ru_stime.tv_usec / 1e6;
}

static amqp_connection_state_t open_to(char **address) {
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    check(socket && !amqp_socket_open(socket, address[0], atoi(address[1])), "connecting");
    check(amqp_login(connection, address[4], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, address[2], address[3]).reply_type ==
              AMQP_RESPONSE_NORMAL, "login");
    amqp_channel_open(connection, 1);
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, "channel");
    return connection;
}

static void consume(amqp_connection_state_t connection, const char *queue, long count, int prefetch) {
    amqp_basic_qos(connection, 1, 0, prefetch, 0);
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, "consume");
    for (long got = 1; got <= count; got++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0).reply_type == AMQP_RESPONSE_NORMAL, "delivery");
        if (got % (prefetch / 2) == 0 || got == count)
            amqp_basic_ack(connection, 1, envelope.delivery_tag, 1);
        amqp_destroy_envelope(&envelope);
    }
}

static void publish(amqp_connection_state_t connection, const char *exchange, long count, int in_flight) {
    char body[320];
    long sent = 0;
    uint64_t confirmed = 0;
    amqp_basic_properties_t properties;
    memset(body, 'x', sizeof body);
    memset(&properties, 0, sizeof properties);
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = 2;
    amqp_confirm_select(connection, 1);
    amqp_bytes_t bytes = {sizeof body, body};
    while ((long)confirmed < count) {
        while (sent < count && sent - (long)confirmed < in_flight) {
            check(!amqp_basic_publish(connection, 1, amqp_cstring_bytes(exchange), amqp_cstring_bytes("order"), 1, 0,
                                      &properties, bytes), "publish");
            sent++;
        }
        amqp_frame_t frame;
        amqp_maybe_release_buffers(connection);
        check(!amqp_simple_wait_frame(connection, &frame), "confirm");
        if (frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
            amqp_basic_ack_t *ack = frame.payload.method.decoded;
            confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
        } else check(0, "confirm");
    }
}

static double peak(void) {
    char line[256];
    long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (status) fclose(status);
    return kilobytes / 1024.0;
}

int main(int argc, char **argv) {
    struct rusage usage;
    check(argc == 10, "usage");
    long count = atol(argv[8]);
    amqp_connection_state_t connection = open_to(argv + 2);
    double began = now(), used = cpu(&usage);
    if (!strcmp(argv[1], "consume")) consume(connection, argv[7], count, atoi(argv[9]));
    else publish(connection, argv[7], count, atoi(argv[9]));
    double seconds = now() - began, burnt = cpu(&usage) - used;
    amqp_channel_close(connection, 1, AMQP_REPLY_SUCCESS);
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    printf("{\"count\": %ld, \"seconds\": %f, \"cpu\": %f, \"peak\": %f, \"repeats\": 0, \"latencies\": []}\n", count, seconds, burnt,
           peak());
    return 0;
}
