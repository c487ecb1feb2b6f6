import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.ToIntFunction;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Utils;

/**
 * Apache Kafka's own Java client against a broker: every acks and codec, idempotence, keys, headers, positions, topic
 * admin, and kafka-producer-perf-test. Started as a source file: {@code java -cp 'lib/*' ClientSuite.java --bootstrap HOST:PORT}.
 */
public class ClientSuite {
    static final Duration DEADLINE = Duration.ofSeconds(60);
    static final Duration POLL = Duration.ofMillis(200);
    static final int PERF_RECORDS = 50_000;

    interface Case {
        void run() throws Exception;
    }

    private final String bootstrap;
    private final Admin admin;
    private final Map<String, Case> cases = new java.util.LinkedHashMap<>();
    private int made = 0;

    ClientSuite(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        cases.put("metadata lists the broker and the new topic", this::metadata);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                cases.put("produce acks=" + acks + " " + codec, () -> produce(acks, codec, false));
            }
            cases.put("produce acks=all " + codec + " idempotent", () -> produce("all", codec, true));
        }
        cases.put("keyed records go where murmur2 says and keep their order", this::keyed);
        cases.put("round-robin over partitions", this::roundRobin);
        cases.put("one batch of thousands and values near the size limit", this::big);
        cases.put("a record above max.message.bytes is refused, the next is taken", this::tooLarge);
        cases.put("read from an offset, from the end, and from a time", this::positions);
        cases.put("an offset out of range is reported", this::outOfRange);
        cases.put("topics: duplicate, more partitions, describe, delete", this::topicAdmin);
        cases.put("kafka-producer-perf-test", this::perfTest);
    }

    public static void main(String[] args) {
        if (args.length != 2 || !args[0].equals("--bootstrap")) {
            System.err.println("usage: ClientSuite --bootstrap HOST:PORT");
            System.exit(2);
        }
        System.exit(new ClientSuite(args[1]).run());
    }

    int run() {
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Case> one : cases.entrySet()) {
            long started = System.nanoTime();
            try {
                one.getValue().run();
                passed++;
                System.out.printf("ok   java: %s (%.1f s)%n", one.getKey(), (System.nanoTime() - started) / 1e9);
            } catch (Throwable error) {
                failed++;
                error.printStackTrace(System.out);
                System.out.printf("FAIL java: %s: %s%n", one.getKey(), error);
            }
        }
        admin.close(Duration.ofSeconds(5));
        System.out.printf("java: %d passed, %d failed, 0 skipped%n", passed, failed);
        return failed == 0 ? 0 : 1;
    }

    /** A record as the suite compares it: null and empty apart, headers in order. */
    record Item(byte[] key, byte[] value, List<Header> headers) {
        @Override
        public boolean equals(Object other) {
            return other instanceof Item o && Arrays.equals(key, o.key) && Arrays.equals(value, o.value) && headers.equals(o.headers);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(value);
        }
    }

    static Item item(byte[] key, byte[] value) {
        return new Item(key, value, List.of());
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The same awkward set as suite.py's. */
    static List<Item> records(int count) {
        List<Item> out = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            byte[] key = i % 7 == 0 ? null : i % 29 == 3 ? new byte[0] : bytes("key-" + i % 10);
            byte[] value = null;
            if (i % 11 != 5) {
                ByteBuffer built = ByteBuffer.allocate(i % 13 == 4 ? 0 : 7 + i * 17 % 900);
                if (built.hasRemaining()) built.put(bytes(String.format("%06d:", i)));
                for (int at = 0; built.hasRemaining(); at++) built.put((byte) (i + at));
                value = built.array();
            }
            List<Header> headers = i % 5 != 0 ? List.of() : List.of(new RecordHeader("trace", bytes("" + i)), new RecordHeader("empty", new byte[0]),
                new RecordHeader("null", (byte[]) null), new RecordHeader("trace", bytes("again")), new RecordHeader("été", new byte[] {0, -1}));
            out.add(new Item(key, value, headers));
        }
        return out;
    }

    static void expect(Object got, Object wanted, String what) {
        if (!got.equals(wanted)) throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
    }

    String fresh(String prefix) {
        return prefix + "-" + Long.toHexString(System.currentTimeMillis()) + "-" + ++made;
    }

    String create(String prefix, int partitions, Map<String, String> configs) throws Exception {
        String topic = fresh(prefix);
        admin.createTopics(List.of(new NewTopic(topic, Optional.of(partitions), Optional.of((short) 1)).configs(configs))).all().get();
        return topic;
    }

    List<RecordMetadata> send(String topic, List<Item> what, ToIntFunction<Integer> partition, long baseTime, Map<String, String> more) throws Exception {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", "5", "enable.idempotence", "false",
            "key.serializer", ByteArraySerializer.class, "value.serializer", ByteArraySerializer.class));
        config.putAll(more);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config)) {
            for (int i = 0; i < what.size(); i++) {
                Item one = what.get(i);
                Integer where = partition == null ? null : partition.applyAsInt(i);
                sent.add(producer.send(new ProducerRecord<>(topic, where, baseTime == 0 ? null : baseTime + i * 100L, one.key, one.value, one.headers)));
            }
            producer.flush();
        }
        List<RecordMetadata> out = new ArrayList<>();
        for (Future<RecordMetadata> one : sent) out.add(one.get(DEADLINE.toSeconds(), TimeUnit.SECONDS));
        return out;
    }

    KafkaConsumer<byte[], byte[]> consumer() {
        Properties config = new Properties();
        config.putAll(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "none", "enable.auto.commit", "false", "fetch.max.wait.ms", "100",
            "key.deserializer", ByteArrayDeserializer.class, "value.deserializer", ByteArrayDeserializer.class));
        return new KafkaConsumer<>(config);
    }

    /** `count` records of one partition from the consumer's position, which is then the end of the partition. */
    static List<ConsumerRecord<byte[], byte[]>> drain(KafkaConsumer<byte[], byte[]> consumer, TopicPartition where, int count) {
        List<ConsumerRecord<byte[], byte[]>> out = new ArrayList<>();
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (out.size() < count || consumer.position(where) < consumer.endOffsets(Set.of(where)).get(where)) {
            if (System.nanoTime() > end) throw new AssertionError("waited for " + count + " records of " + where + ", have " + out.size());
            out.addAll(consumer.poll(POLL).records(where));
        }
        return out;
    }

    void checkPartition(String topic, int partition, List<Item> wanted) {
        TopicPartition where = new TopicPartition(topic, partition);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(where));
            consumer.seekToBeginning(List.of(where));
            List<ConsumerRecord<byte[], byte[]>> got = drain(consumer, where, wanted.size());
            expect(got.size(), wanted.size(), "records of " + where);
            for (int i = 0; i < got.size(); i++) {
                ConsumerRecord<byte[], byte[]> r = got.get(i);
                expect(r.offset(), (long) i, "offset");
                expect(new Item(r.key(), r.value(), Arrays.asList(r.headers().toArray())), wanted.get(i), "record " + i + " of " + where);
            }
        }
    }

    static void refused(Class<? extends Throwable> type, Case call) throws Exception {
        try {
            call.run();
        } catch (ExecutionException error) {
            if (type.isInstance(error.getCause())) return;
            throw error;
        }
        throw new AssertionError("not refused with " + type.getSimpleName());
    }

    void metadata() throws Exception {
        String topic = create("java-meta", 3, Map.of());
        var found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        expect(found.partitions().size(), 3, "partitions");
        expect(found.partitions().get(2).leader().id(), admin.describeCluster().controller().get().id(), "leader");
        expect(found.topicId().toString().isEmpty(), false, "a topic id");
        expect(admin.listTopics().names().get().contains(topic), true, "the topic in the list");
        expect(admin.describeCluster().nodes().get().isEmpty(), false, "nodes");
    }

    void produce(String acks, String codec, boolean idempotent) throws Exception {
        String topic = create("java", 1, Map.of());
        List<Item> what = records(120);
        List<RecordMetadata> sent = send(topic, what, i -> 0, 0, Map.of("acks", acks, "compression.type", codec, "enable.idempotence", "" + idempotent));
        for (int i = 0; i < sent.size() && !acks.equals("0"); i++) expect(sent.get(i).offset(), (long) i, "offset acknowledged");
        checkPartition(topic, 0, what);
    }

    void keyed() throws Exception {
        String topic = create("java-keyed", 4, Map.of());
        List<Item> what = new ArrayList<>();
        for (int i = 0; i < 340; i++) what.add(item(bytes("key-" + i % 17), bytes("" + i)));
        Map<Integer, List<Item>> wanted = new HashMap<>();
        List<RecordMetadata> sent = send(topic, what, null, 0, Map.of("acks", "all"));
        for (int i = 0; i < sent.size(); i++) {
            expect(sent.get(i).partition(), Utils.toPositive(Utils.murmur2(what.get(i).key)) % 4, "partition");
            wanted.computeIfAbsent(sent.get(i).partition(), p -> new ArrayList<>()).add(what.get(i));
        }
        for (var one : wanted.entrySet()) checkPartition(topic, one.getKey(), one.getValue());
    }

    void roundRobin() throws Exception {
        String topic = create("java-rr", 3, Map.of());
        List<Item> what = records(90);
        send(topic, what, i -> i % 3, 0, Map.of("acks", "all"));
        for (int p = 0; p < 3; p++) {
            List<Item> wanted = new ArrayList<>();
            for (int i = p; i < 90; i += 3) wanted.add(what.get(i));
            checkPartition(topic, p, wanted);
        }
    }

    void big() throws Exception {
        String topic = create("java-big", 1, Map.of());
        List<Item> what = new ArrayList<>();
        for (int i = 0; i < 8000; i++) what.add(item(bytes("" + i), new byte[100]));
        for (int i = 0; i < 4; i++) {
            byte[] large = new byte[900_000];
            Arrays.fill(large, (byte) i);
            what.add(item(bytes("large"), large));
        }
        send(topic, what, i -> 0, 0, Map.of("acks", "all", "enable.idempotence", "true", "batch.size", "1000000", "linger.ms", "200"));
        checkPartition(topic, 0, what);
    }

    void tooLarge() throws Exception {
        String topic = create("java-toolarge", 1, Map.of("max.message.bytes", "20000"));
        refused(RecordTooLargeException.class, () -> send(topic, List.of(item(null, new byte[50_000])), i -> 0, 0, Map.of("acks", "all")));
        send(topic, List.of(item(null, bytes("small"))), i -> 0, 0, Map.of("acks", "all"));
        checkPartition(topic, 0, List.of(item(null, bytes("small"))));
    }

    void positions() throws Exception {
        String topic = create("java-pos", 1, Map.of());
        TopicPartition where = new TopicPartition(topic, 0);
        long base = System.currentTimeMillis() - 100_000;
        List<Item> what = new ArrayList<>();
        for (int i = 0; i < 100; i++) what.add(item(null, bytes("" + i)));
        send(topic, what, i -> 0, base, Map.of("acks", "all", "batch.size", "400"));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(where));
            consumer.seek(where, 37);
            var got = drain(consumer, where, 63);
            for (int i = 0; i < 63; i++) {
                expect(new String(got.get(i).value(), StandardCharsets.UTF_8), "" + (i + 37), "value");
                expect(got.get(i).timestamp(), base + (i + 37) * 100L, "timestamp");
            }
            expect(consumer.beginningOffsets(List.of(where)).get(where), 0L, "beginning");
            expect(consumer.endOffsets(List.of(where)).get(where), 100L, "end");
            long[][] lookups = {{0, 0}, {base, 0}, {base + 1, 1}, {base + 4200, 42}, {base + 9900, 99}, {base + 9901, -1}};
            for (long[] lookup : lookups) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(where, lookup[0])).get(where);
                expect(found == null ? -1L : found.offset(), lookup[1], "offset for time base+" + (lookup[0] - base));
            }
            consumer.seekToEnd(List.of(where));
            expect(consumer.position(where), 100L, "position at the end");
            send(topic, List.of(item(bytes("k"), bytes("after"))), i -> 0, 0, Map.of("acks", "all"));
            var tail = drain(consumer, where, 1);
            expect(new String(tail.get(0).value(), StandardCharsets.UTF_8), "after", "the tail record");
        }
        expect(admin.listOffsets(Map.of(where, OffsetSpec.earliest())).all().get().get(where).offset(), 0L, "earliest");
        expect(admin.listOffsets(Map.of(where, OffsetSpec.latest())).all().get().get(where).offset(), 101L, "latest");
        expect(admin.listOffsets(Map.of(where, OffsetSpec.maxTimestamp())).all().get().get(where).offset(), 100L, "offset of the newest time");
    }

    void outOfRange() throws Exception {
        TopicPartition where = new TopicPartition(create("java-oor", 1, Map.of()), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(where));
            consumer.seek(where, 500);
            long end = System.nanoTime() + DEADLINE.toNanos();
            while (System.nanoTime() < end) {
                try {
                    consumer.poll(POLL);
                } catch (OffsetOutOfRangeException expected) {
                    return;
                }
            }
            throw new AssertionError("no OffsetOutOfRangeException");
        }
    }

    void topicAdmin() throws Exception {
        String topic = create("java-admin", 2, Map.of());
        refused(TopicExistsException.class, () -> admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get());
        refused(InvalidReplicationFactorException.class, () -> admin.createTopics(List.of(new NewTopic(fresh("java-bad"), 2, (short) 9))).all().get());
        refused(InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all().get());
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() != 5) {
            if (System.nanoTime() > end) throw new AssertionError("no five partitions");
        }
        send(topic, records(10), i -> 4, 0, Map.of("acks", "all"));
        checkPartition(topic, 4, records(10));
        admin.deleteTopics(List.of(topic)).all().get();
        while (admin.listTopics().names().get().contains(topic)) {
            if (System.nanoTime() > end) throw new AssertionError("the topic stays");
        }
        refused(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(topic)).all().get());
    }

    /** Kafka's own load generator, as a user would run it; what it says it sent must be in the log. */
    void perfTest() throws Exception {
        String topic = create("java-perf", 3, Map.of());
        String java = System.getProperty("java.home") + File.separator + "bin" + File.separator + "java";
        Process perf = new ProcessBuilder(java, "-Xmx256m", "-cp", System.getProperty("java.class.path"), "org.apache.kafka.tools.ProducerPerformance",
            "--topic", topic, "--num-records", "" + PERF_RECORDS, "--record-size", "200", "--throughput", "-1",
            "--producer-props", "bootstrap.servers=" + bootstrap, "acks=all").redirectErrorStream(true).start();
        String said = new String(perf.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        expect(perf.waitFor(), 0, "its status; it said: " + said);
        expect(said.contains(PERF_RECORDS + " records sent"), true, said);
        long total = 0;
        for (int p = 0; p < 3; p++) {
            TopicPartition where = new TopicPartition(topic, p);
            total += admin.listOffsets(Map.of(where, OffsetSpec.latest())).all().get().get(where).offset();
        }
        expect(total, (long) PERF_RECORDS, "records in the log");
    }
}
