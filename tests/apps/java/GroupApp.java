import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Apache Kafka's Java consumer as an application, by the contract of tests/apps/journal.py: {@code BOOTSTRAP TOPIC GROUP PROTOCOL
 * MEMBER SESSION-MS INSTANCE}. PROTOCOL is an assignor of the classic protocol, or {@code consumer} (KIP-848).
 */
public class GroupApp implements ConsumerRebalanceListener {
    static final int FENCED = 4;
    static final long HANDLE_MS = 2;
    static final int COMMIT_AFTER_RECORDS = 20;
    static final Duration COMMIT_AFTER = Duration.ofMillis(300);
    static final Duration POLL = Duration.ofMillis(100);
    static final Duration COMMIT_MAX = Duration.ofSeconds(10);
    static final Map<String, String> ASSIGNORS = Map.of("range", "RangeAssignor", "cooperative-sticky", "CooperativeStickyAssignor");

    private final String topic;
    private final String member;
    private final KafkaConsumer<String, String> consumer;
    private final FileOutputStream out = new FileOutputStream(FileDescriptor.out);
    private final Map<Integer, Long> uncommitted = new TreeMap<>();
    private int count = 0;
    private long since = System.nanoTime();
    private volatile boolean stopping = false;

    GroupApp(String[] args) {
        topic = args[1];
        member = args[4];
        consumer = new KafkaConsumer<>(config(args), new StringDeserializer(), new StringDeserializer());
    }

    static Properties config(String[] args) {
        Properties config = new Properties();
        config.putAll(Map.of("bootstrap.servers", args[0], "group.id", args[2], "client.id", args[4], "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "fetch.max.wait.ms", "100", "metadata.max.age.ms", "1000", "max.poll.records", "" + COMMIT_AFTER_RECORDS,
            "reconnect.backoff.max.ms", "500"));
        if (args[3].equals("consumer")) {
            config.put("group.protocol", "consumer");
        } else {
            config.put("group.protocol", "classic");
            config.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + ASSIGNORS.get(args[3]));
            config.put("session.timeout.ms", args[5]);
            config.put("heartbeat.interval.ms", "" + Integer.parseInt(args[5]) / 6);
            if (!args[6].isEmpty()) config.put("group.instance.id", args[6]);
        }
        return config;
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 7) {
            System.err.println("usage: GroupApp BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS INSTANCE");
            System.exit(2);
        }
        GroupApp app = new GroupApp(args);
        Thread main = Thread.currentThread();
        // SIGTERM runs this; the process ends, with the status that is given here, when the loop has.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            app.stopping = true;
            try {
                main.join();
            } catch (InterruptedException ended) {
                Runtime.getRuntime().halt(1);
            }
            Runtime.getRuntime().halt(0);
        }));
        try {
            app.run();
        } catch (FencedInstanceIdException another) {
            System.err.println(another);
            Runtime.getRuntime().halt(FENCED);
        }
    }

    void run() throws Exception {
        consumer.subscribe(List.of(topic), this);
        while (!stopping) {
            for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                Thread.sleep(HANDLE_MS);
                say("handled", String.format("\"p\": %d, \"o\": %d, \"v\": \"%s\"", record.partition(), record.offset(), record.value()));
                uncommitted.put(record.partition(), record.offset() + 1);
                count++;
            }
            if (uncommitted.isEmpty()) since = System.nanoTime();
            if (count >= COMMIT_AFTER_RECORDS || System.nanoTime() - since >= COMMIT_AFTER.toNanos()) commit(new ArrayList<>(uncommitted.keySet()));
        }
        consumer.close();
        say("closed", null);
    }

    /** One line, in one write. */
    void say(String event, String more) {
        String line = String.format("{\"m\": \"%s\", \"e\": \"%s\"%s}%n", member, event, more == null ? "" : ", " + more);
        try {
            out.write(line.getBytes(StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    void commit(List<Integer> partitions) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        partitions.stream().filter(uncommitted::containsKey)
            .forEach(one -> offsets.put(new TopicPartition(topic, one), new OffsetAndMetadata(uncommitted.get(one))));
        count = 0;
        since = System.nanoTime();
        if (offsets.isEmpty()) return;
        String told = offsets.entrySet().stream().map(one -> "\"" + one.getKey().partition() + "\": " + one.getValue().offset())
            .collect(Collectors.joining(", ", "\"o\": {", "}"));
        try {
            consumer.commitSync(offsets, COMMIT_MAX);
            partitions.forEach(uncommitted::remove);
            say("committed", told);
        } catch (KafkaException error) {
            say("refused", told + ", \"why\": \"" + error.getClass().getSimpleName() + "\"");
        }
    }

    static List<Integer> numbers(Collection<TopicPartition> partitions) {
        return partitions.stream().map(TopicPartition::partition).sorted().collect(Collectors.toList());
    }

    void givenUp(String event, List<Integer> partitions) {
        partitions.forEach(uncommitted::remove);
        say(event, "\"p\": " + partitions);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        var group = consumer.groupMetadata();
        say("assigned", "\"p\": " + numbers(partitions) + ", \"g\": " + group.generationId() + ", \"id\": \"" + group.memberId() + "\"");
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit(numbers(partitions));
        givenUp("revoked", numbers(partitions));
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        givenUp("lost", numbers(partitions));
    }
}
