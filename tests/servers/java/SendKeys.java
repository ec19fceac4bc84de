import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends a record for each Base64 line of a file, keyed by it, and prints the partition that each went to. */
public class SendKeys {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("key.serializer", ByteArraySerializer.class.getName());
        settings.put("value.serializer", ByteArraySerializer.class.getName());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            for (String line : Files.readAllLines(Path.of(arguments[2]))) {
                byte[] key = Base64.getDecoder().decode(line);
                sent.add(producer.send(new ProducerRecord<>(arguments[1], key, new byte[0])));
            }
        }
        StringBuilder partitions = new StringBuilder();
        for (Future<RecordMetadata> one : sent) {
            partitions.append(one.get().partition()).append('\n');
        }
        System.out.print(partitions);
    }
}
