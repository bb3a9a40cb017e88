import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Submits one job to the media relay over Kafka and waits for its end.
 *
 * <p>usage: java -cp 'JARS/*' Submit.java BOOTSTRAP TASK FILE
 *
 * <p>Prints where the broker put the record, then the job's terminal event, one JSON a line. Exit code 0: completed, 1: any
 * other end, 2: wrong usage. The contract is docs/kafka.md.
 */
public final class Submit {
    private static final String LANE_TOPIC = "media.jobs.default";
    private static final String EVENTS_TOPIC = "media.events";
    private static final String TENANT = "default";
    private static final Set<String> TERMINAL =
        Set.of("completed", "failed", "cancelled", "expired", "dead_lettered");
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final SecureRandom RANDOM = new SecureRandom();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) {
            System.err.println("usage: Submit BOOTSTRAP TASK FILE");
            System.exit(2);
        }
        String bootstrap = arguments[0];
        UUID id = newJobId();
        ObjectNode job = JSON.createObjectNode().put("id", id.toString()).put("tenant", TENANT).put("task", arguments[1]);
        Path file = Path.of(arguments[2]);
        job.putObject("input").putObject("inline")
            .put("data", Files.readAllBytes(file)) // Jackson writes bytes as base64
            .put("name", file.getFileName().toString());

        try (KafkaConsumer<String, byte[]> consumer = openEvents(bootstrap, id)) {
            RecordMetadata place = submit(bootstrap, id, job);
            System.out.println(JSON.createObjectNode().put("id", id.toString()).put("topic", place.topic())
                .put("partition", place.partition()).put("offset", place.offset()));
            JsonNode end = waitForEnd(consumer, id);
            System.out.println(end);
            System.exit(end.get("event").asText().equals("completed") ? 0 : 1);
        }
    }

    /** A UUID of version 7: time-ordered, so that nodes find the job's events quickly. */
    private static UUID newJobId() {
        long high = System.currentTimeMillis() << 16 | 0x7000L | RANDOM.nextInt(0x1000);
        return new UUID(high, RANDOM.nextLong() >>> 2 | 0x8000000000000000L);
    }

    /** A consumer at the end of the one partition that this job's events go to; it joins no group. */
    private static KafkaConsumer<String, byte[]> openEvents(String bootstrap, UUID id) {
        KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(
            Map.of("bootstrap.servers", bootstrap, "isolation.level", "read_committed", "enable.auto.commit", "false"),
            new StringDeserializer(), new ByteArrayDeserializer());
        int partitions = consumer.partitionsFor(EVENTS_TOPIC).size();
        // The twelve bits after the UUID's version name the partition.
        TopicPartition at = new TopicPartition(EVENTS_TOPIC, (int) (id.getMostSignificantBits() & 0xfff) % partitions);
        consumer.assign(List.of(at));
        consumer.seekToEnd(List.of(at));
        consumer.position(at); // asks for the end now, before the job is submitted, so that no event is missed
        return consumer;
    }

    /** Writes the record; returns once every in-sync broker has it: from then on the job is accepted. */
    private static RecordMetadata submit(String bootstrap, UUID id, JsonNode job) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", "true");
        try (KafkaProducer<String, byte[]> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
            // The default partitioner hashes the key with murmur2, as the relay expects.
            ProducerRecord<String, byte[]> record =
                new ProducerRecord<>(LANE_TOPIC, TENANT + "/" + id, JSON.writeValueAsBytes(job));
            String trace = "00-" + randomHex(16) + "-" + randomHex(8) + "-01";
            record.headers().add("traceparent", trace.getBytes(StandardCharsets.US_ASCII));
            // An exception leaves it open whether it was written: write it again with the same id, it runs once.
            return producer.send(record).get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
        }
    }

    private static JsonNode waitForEnd(KafkaConsumer<String, byte[]> consumer, UUID id) throws Exception {
        Instant deadline = Instant.now().plus(PATIENCE);
        while (Instant.now().isBefore(deadline)) {
            for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                if (!id.toString().equals(record.key())) {
                    continue;
                }
                byte[] kind = record.headers().lastHeader("relay-event").value();
                if (TERMINAL.contains(new String(kind, StandardCharsets.US_ASCII))) {
                    return JSON.readTree(record.value());
                }
            }
        }
        throw new IllegalStateException("the job did not end in time");
    }

    private static String randomHex(int bytes) {
        byte[] random = new byte[bytes];
        RANDOM.nextBytes(random);
        return HexFormat.of().formatHex(random);
    }
}
