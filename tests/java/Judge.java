import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;

/**
 * Answers a line of JSON with a line of JSON, as Apache's Avro for Java sees it.
 *
 * <p>Asked {"writer": schema, "reader": schema, "bodies": [hex]}: whether it calls the two compatible, and for each body
 * what it reads, written again under the reader's schema, or the error.
 */
public final class Judge {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.writeValueAsString(answer(JSON.readTree(line))));
        }
    }

    private static ObjectNode answer(JsonNode question) {
        ObjectNode answer = JSON.createObjectNode();
        Schema writer;
        Schema reader;
        try {
            writer = new Schema.Parser().parse(question.get("writer").toString());
            reader = new Schema.Parser().parse(question.get("reader").toString());
        } catch (Exception error) {
            return answer.put("error", error.toString());
        }
        try {
            answer.put(
                    "compatible",
                    SchemaCompatibility.checkReaderWriterCompatibility(reader, writer).getType()
                            == SchemaCompatibility.SchemaCompatibilityType.COMPATIBLE);
        } catch (Exception error) {
            answer.put("compatible", false);
        }
        ArrayNode read = answer.putArray("read");
        for (JsonNode body : question.get("bodies")) {
            read.add(read(writer, reader, HexFormat.of().parseHex(body.asText())));
        }
        return answer;
    }

    private static ObjectNode read(Schema writer, Schema reader, byte[] body) {
        ObjectNode found = JSON.createObjectNode();
        try {
            BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(body, null);
            Object datum = new GenericDatumReader<Object>(writer, reader).read(null, decoder);
            if (!decoder.isEnd()) {
                return found.put("error", "bytes are left over");
            }
            ByteArrayOutputStream written = new ByteArrayOutputStream();
            BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(written, null);
            new GenericDatumWriter<Object>(reader).write(datum, encoder);
            encoder.flush();
            return found.put("body", HexFormat.of().formatHex(written.toByteArray()));
        } catch (Exception | StackOverflowError error) {
            return found.put("error", error.toString());
        }
    }
}
