import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Apache Kafka's own Java consumer in groups, by both protocols and from one to the other, its admin client, and
 * kafka-consumer-groups. Started as a source file: {@code java -cp 'lib/*' GroupSuite.java --bootstrap HOST:PORT}.
 */
public class GroupSuite {
    static final Duration DEADLINE = Duration.ofSeconds(60);
    static final Duration POLL = Duration.ofMillis(50);
    static final int PARTITIONS = 4;
    static final Map<String, Map<String, String>> PROTOCOLS = new LinkedHashMap<>();

    static {
        PROTOCOLS.put("range", Map.of("group.protocol", "classic", "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"));
        PROTOCOLS.put("cooperative-sticky",
            Map.of("group.protocol", "classic", "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"));
        PROTOCOLS.put("consumer", Map.of("group.protocol", "consumer"));
    }

    interface Case {
        void run() throws Exception;
    }

    private final String bootstrap;
    private final Admin admin;
    private final KafkaProducer<String, String> producer;
    private final Map<String, Case> cases = new LinkedHashMap<>();
    private int made = 0;

    GroupSuite(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        this.producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer());
        for (String protocol : PROTOCOLS.keySet()) {
            cases.put(protocol + ": what was committed is where the next one resumes", () -> resume(protocol));
            cases.put(protocol + ": two members share the partitions, the one that stays takes over", () -> share(protocol));
            cases.put(protocol + ": a static member that restarts gets its partitions back", () -> restarts(protocol));
        }
        cases.put("a group moves to the consumer protocol and back with its offsets", this::migrate);
        cases.put("the broker resolves a regular expression, also for topics that are made later", this::pattern);
        cases.put("an admin lists, describes, resets and deletes groups", this::administer);
        cases.put("kafka-consumer-groups", this::tool);
    }

    public static void main(String[] args) {
        if (args.length != 2 || !args[0].equals("--bootstrap")) {
            System.err.println("usage: GroupSuite --bootstrap HOST:PORT");
            System.exit(2);
        }
        System.exit(new GroupSuite(args[1]).run());
    }

    int run() {
        int passed = 0;
        int failed = 0;
        for (Map.Entry<String, Case> one : cases.entrySet()) {
            long started = System.nanoTime();
            try {
                one.getValue().run();
                passed++;
                System.out.printf("ok   java-groups: %s (%.1f s)%n", one.getKey(), (System.nanoTime() - started) / 1e9);
            } catch (Throwable error) {
                failed++;
                error.printStackTrace(System.out);
                System.out.printf("FAIL java-groups: %s: %s%n", one.getKey(), error);
            }
        }
        producer.close(Duration.ofSeconds(5));
        admin.close(Duration.ofSeconds(5));
        System.out.printf("java-groups: %d passed, %d failed, 0 skipped%n", passed, failed);
        return failed == 0 ? 0 : 1;
    }

    static void expect(Object got, Object wanted, String what) {
        if (!got.equals(wanted)) throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
    }

    String fresh(String prefix) {
        return prefix + "-" + Long.toHexString(System.currentTimeMillis()) + "-" + ++made;
    }

    String create(String topic) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, Optional.of(PARTITIONS), Optional.of((short) 1)))).all().get();
        return topic;
    }

    /** The values first, first + 1, ..., one partition after the other. */
    List<String> send(String topic, int first, int count) {
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            sent.add(String.format("%04d", first + i));
            producer.send(new ProducerRecord<>(topic, i % PARTITIONS, null, sent.get(i)));
        }
        producer.flush();
        return sent;
    }

    KafkaConsumer<String, String> consumer(String group, String protocol, String... more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", "false",
            "auto.offset.reset", "earliest", "fetch.max.wait.ms", "100", "key.deserializer", StringDeserializer.class, "value.deserializer", StringDeserializer.class));
        config.putAll(PROTOCOLS.get(protocol));
        for (int i = 0; i < more.length; i += 2) config.put(more[i], more[i + 1]);
        return new KafkaConsumer<>(config);
    }

    KafkaConsumer<String, String> member(String group, String topic, String protocol, String... more) {
        KafkaConsumer<String, String> consumer = consumer(group, protocol, more);
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    static void poll(List<KafkaConsumer<String, String>> members, List<String> got) {
        for (var member : members) for (ConsumerRecord<String, String> r : member.poll(POLL)) got.add(r.value());
    }

    static List<String> read(List<KafkaConsumer<String, String>> members, int count, List<String> got) {
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (got.size() < count) {
            if (System.nanoTime() > end) throw new AssertionError("waited for " + count + " records, have " + got.size());
            poll(members, got);
        }
        Collections.sort(got);
        return got;
    }

    static Set<Integer> owned(KafkaConsumer<String, String> member) {
        Set<Integer> out = new TreeSet<>();
        member.assignment().forEach(one -> out.add(one.partition()));
        return out;
    }

    /** Polls until the members share all partitions evenly; gives what was read meanwhile. */
    static List<String> spread(List<KafkaConsumer<String, String>> members) {
        long end = System.nanoTime() + DEADLINE.toNanos();
        List<String> got = new ArrayList<>();
        while (true) {
            poll(members, got);
            Set<Integer> all = new TreeSet<>();
            boolean even = true;
            for (var member : members) {
                even &= member.assignment().size() == PARTITIONS / members.size();
                all.addAll(owned(member));
            }
            if (even && all.size() == PARTITIONS) return got;
            if (System.nanoTime() > end) throw new AssertionError("the partitions are not shared: " + members.stream().map(m -> "" + m.assignment()).toList());
        }
    }

    void resume(String protocol) throws Exception {
        String topic = create(fresh("jg-resume"));
        String group = fresh("resume");
        List<String> sent = send(topic, 0, 60);
        try (var first = member(group, topic, protocol)) {
            expect(read(List.of(first), 60, new ArrayList<>()), sent, "what the first one reads");
            first.commitSync();
            TopicPartition where = new TopicPartition(topic, 3);
            expect(first.committed(Set.of(where)).get(where).offset(), 15L, "committed");
        }
        List<String> more = send(topic, 60, 8);
        try (var second = member(group, topic, protocol)) {
            expect(read(List.of(second), 8, new ArrayList<>()), more, "what the second one reads");
        }
    }

    void share(String protocol) throws Exception {
        String topic = create(fresh("jg-share"));
        String group = fresh("share");
        try (var stays = member(group, topic, protocol)) {
            try (var goes = member(group, topic, protocol)) {
                spread(List.of(stays, goes));
                List<String> sent = send(topic, 0, 40);
                expect(read(List.of(stays, goes), 40, new ArrayList<>()), sent, "what both read, each once");
                stays.commitSync();
                goes.commitSync();
            }
            List<String> late = spread(List.of(stays));
            List<String> sent = send(topic, 40, 40);
            expect(read(List.of(stays), 40, late), sent, "what the one that stays reads");
        }
    }

    void restarts(String protocol) throws Exception {
        String topic = create(fresh("jg-static"));
        String group = fresh("static");
        List<String> changes = new ArrayList<>();
        try (var two = consumer(group, protocol, "group.instance.id", "two")) {
            two.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    if (!partitions.isEmpty()) changes.add("revoked " + partitions);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    if (!partitions.isEmpty()) changes.add("assigned " + partitions);
                }
            });
            Set<Integer> had;
            try (var one = member(group, topic, protocol, "group.instance.id", "one")) {
                spread(List.of(one, two));
                had = owned(one);
                changes.clear();
            }
            try (var again = member(group, topic, protocol, "group.instance.id", "one")) {
                spread(List.of(again, two));
                expect(owned(again), had, "the partitions of the one that came back");
            }
            expect(changes, List.of(), "what the other one noticed");
        }
    }

    void migrate() throws Exception {
        String topic = create(fresh("jg-migrate"));
        String group = fresh("migrate");
        List<String> sent = send(topic, 0, 40);
        var classic = member(group, topic, "range");
        expect(read(List.of(classic), 40, new ArrayList<>()), sent, "what the classic member reads");
        classic.commitSync();
        try (var modern = member(group, topic, "consumer")) {
            spread(List.of(classic, modern));
            List<String> more = send(topic, 40, 40);
            expect(read(List.of(classic, modern), 40, new ArrayList<>()), more, "what both protocols read, each once");
            classic.commitSync();
            modern.commitSync();
            classic.close();
            List<String> late = spread(List.of(modern));
            more = send(topic, 80, 8);
            expect(read(List.of(modern), 8, late), more, "what the consumer protocol reads alone");
            modern.commitSync();
        }
        List<String> more = send(topic, 88, 8);
        try (var back = member(group, topic, "range")) {
            expect(read(List.of(back), 8, new ArrayList<>()), more, "what a classic member reads in the end");
        }
    }

    void pattern() throws Exception {
        String prefix = fresh("jg-pattern");
        create(prefix + "-a");
        List<String> sent = send(prefix + "-a", 0, 8);
        try (var member = consumer(fresh("pattern"), "consumer", "metadata.max.age.ms", "500")) {
            member.subscribe(new SubscriptionPattern(prefix + "-[ab]"));
            expect(read(List.of(member), 8, new ArrayList<>()), sent, "the topic that was there");
            create(prefix + "-b");
            create(prefix + "-c");
            send(prefix + "-c", 100, 8);
            List<String> more = send(prefix + "-b", 8, 8);
            expect(read(List.of(member), 8, new ArrayList<>()), more, "the topic that came later");
        }
    }

    void administer() throws Exception {
        for (String protocol : List.of("range", "consumer")) {
            String topic = create(fresh("jg-admin"));
            String group = fresh("admin");
            TopicPartition where = new TopicPartition(topic, 0);
            try (var member = member(group, topic, protocol, "client.id", "admin-case")) {
                spread(List.of(member));
                var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                expect(described.groupState(), GroupState.STABLE, "state");
                expect(described.type().toString(), protocol.equals("consumer") ? "Consumer" : "Classic", "type");
                expect(described.members().size(), 1, "members");
                var found = described.members().iterator().next();
                expect(found.clientId() + " " + found.host(), "admin-case /127.0.0.1", "who it is");
                expect(found.assignment().topicPartitions().size(), PARTITIONS, "what it has");
                expect(admin.listGroups().all().get().stream().anyMatch(one -> one.groupId().equals(group)), true, "listed");
                member.commitSync(Map.of(where, new OffsetAndMetadata(3, Optional.of(0), "why")));
                refused(GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(group)).all().get());
            }
            expect(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get(), Map.of(where, new OffsetAndMetadata(3, Optional.of(0), "why")), "offsets");
            admin.alterConsumerGroupOffsets(group, Map.of(where, new OffsetAndMetadata(1))).all().get();
            expect(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(where).offset(), 1L, "reset");
            admin.deleteConsumerGroupOffsets(group, Set.of(where)).all().get();
            expect(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get(), Map.of(), "deleted offsets");
            admin.alterConsumerGroupOffsets(group, Map.of(where, new OffsetAndMetadata(1))).all().get();
            admin.deleteConsumerGroups(List.of(group)).all().get();
            expect(admin.listGroups().all().get().stream().anyMatch(one -> one.groupId().equals(group)), false, "listed when deleted");
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

    void tool() throws Exception {
        String topic = create(fresh("jg-tool"));
        String group = fresh("tool");
        List<String> sent = send(topic, 0, 40);
        try (var member = member(group, topic, "range")) {
            expect(read(List.of(member), 40, new ArrayList<>()), sent, "what it reads");
            member.commitSync();
            expect(consumerGroups("--list").contains(group), true, "--list");
            String described = consumerGroups("--describe", "--group", group);
            expect(described.lines().filter(line -> line.contains(topic)).count(), (long) PARTITIONS, "--describe: " + described);
            expect(consumerGroups("--describe", "--group", group, "--members", "--verbose").contains(topic), true, "--members");
            expect(consumerGroups("--describe", "--group", group, "--state").contains("Stable"), true, "--state");
        }
        String reset = consumerGroups("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute");
        expect(reset.lines().filter(line -> line.contains(topic)).count(), (long) PARTITIONS, "--reset-offsets: " + reset);
        try (var member = member(group, topic, "range")) {
            expect(read(List.of(member), 40, new ArrayList<>()), sent, "what it reads again");
        }
        expect(consumerGroups("--delete", "--group", group).contains("successful"), true, "--delete");
        expect(consumerGroups("--list").contains(group), false, "--list when deleted");
    }

    String consumerGroups(String... args) throws Exception {
        String java = System.getProperty("java.home") + File.separator + "bin" + File.separator + "java";
        List<String> command = new ArrayList<>(List.of(java, "-Xmx128m", "-cp", System.getProperty("java.class.path"),
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", bootstrap));
        command.addAll(Arrays.asList(args));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        expect(process.waitFor(), 0, "its status; it said: " + said);
        return said;
    }
}
