package com.example.pointsman;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import com.example.pointsman.v1.ResumeToken;
import com.example.pointsman.v1.Traffic;
import com.example.pointsman.v1.TrafficTarget;
import com.example.pointsman.v1.WatchResponse;
import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.reflect.TypeToken;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Runs watch-cases.json, which the clients of all languages share. */
class WatchProtocolTest {

  private record Case(String name, List<CaseStep> steps) {}

  private record Resume(String epoch, String revision) {}

  private record CaseStep(
      String do_,
      double at,
      Resume resume,
      JsonObject event,
      String step,
      List<String> revisions,
      Boolean first,
      double ageSeconds,
      boolean report,
      String code,
      double retrySeconds,
      List<Double> pause,
      Map<String, String> live,
      Boolean hasTraffic,
      Map<String, Map<String, Integer>> traffic) {}

  @TestFactory
  Stream<DynamicTest> cases() throws IOException {
    try (var resource = WatchProtocolTest.class.getResourceAsStream("/watch-cases.json");
        var reader = new InputStreamReader(resource, StandardCharsets.UTF_8)) {
      Gson gson = new com.google.gson.GsonBuilder().setFieldNamingStrategy(WatchProtocolTest::jsonName).create();
      List<Case> cases = gson.fromJson(reader, new TypeToken<List<Case>>() {}.getType());
      assertFalse(cases.isEmpty());
      return cases.stream().map(each -> DynamicTest.dynamicTest(each.name(), () -> run(each)));
    }
  }

  private static String jsonName(java.lang.reflect.Field field) {
    return field.getName().replace("_", ""); // "do" is a word of Java
  }

  private static void run(Case each) throws Exception {
    for (double random : new double[] {0, 1}) {
      Runner runner = new Runner(random);
      for (CaseStep step : each.steps()) {
        runner.run(step);
      }
    }
  }

  /** Runs the steps of a case, for one value of the random part of pauses. */
  private static final class Runner {
    private final double random;
    private final WatchProtocol protocol;
    private final RouteTable table = new RouteTable();
    private Exception violation;

    Runner(double random) {
      this.random = random;
      this.protocol = new WatchProtocol(() -> random);
    }

    void run(CaseStep step) throws Exception {
      switch (step.do_()) {
        case "open" -> {
          Optional<Resume> resume = protocol.resume().map(Runner::resumeOf);
          assertEquals(Optional.ofNullable(step.resume()), resume);
          protocol.opened(nanos(step.at()));
        }
        case "receive" -> receive(step);
        case "end" -> end(step);
        case "compare" -> compare(step);
        default -> throw new IllegalArgumentException(step.do_());
      }
    }

    private void receive(CaseStep step) throws InvalidProtocolBufferException {
      WatchResponse.Builder event = WatchResponse.newBuilder();
      JsonFormat.parser().merge(step.event().toString(), event);
      Optional<Step> done;
      try {
        done = protocol.received(event.build());
      } catch (WatchProtocol.Violation error) {
        assertEquals("fail", step.step(), error.getMessage());
        violation = error;
        return;
      }
      assertEquals(step.step(), done.map(each -> each.getClass().getSimpleName().toLowerCase()).orElse("none"));
      done.ifPresent(each -> table.write(each, protocol.hasTraffic()));
      if (done.orElse(null) instanceof Step.Apply apply) {
        assertEquals(step.revisions(), apply.changes().stream().map(change -> "" + change.getRevision()).toList());
      }
      if (done.orElse(null) instanceof Step.Confirm confirm && step.first() != null) {
        Duration age = Duration.ofNanos(nanos(step.ageSeconds()));
        assertEquals(new Step.Confirm(confirm.asOf(), age, step.report(), step.first()), confirm);
      }
    }

    private void compare(CaseStep step) {
      assertEquals(step.live(), table.live());
      if (step.hasTraffic() != null) {
        assertEquals(step.hasTraffic(), table.traffic().isPresent());
      }
      if (step.traffic() != null) {
        Map<String, Map<String, Integer>> weights = new HashMap<>();
        table.traffic().orElseThrow().forEach((family, traffic) -> weights.put(family, weightsOf(traffic)));
        assertEquals(step.traffic(), weights);
      }
    }

    private static Map<String, Integer> weightsOf(Traffic traffic) {
      return traffic.getTargetsList().stream()
          .collect(Collectors.toMap(TrafficTarget::getVersion, TrafficTarget::getWeight));
    }

    private void end(CaseStep step) {
      Exception error = step.code().equals("FAIL") ? violation : failure(step);
      Duration pause = protocol.ended(error, nanos(step.at()));
      // Without a random part all of a pause, and with the largest half of it; what a server asks for only grows.
      boolean asked = step.retrySeconds() == step.pause().get(0);
      double expected = step.pause().get((random == 0) == asked ? 0 : 1);
      assertEquals(Duration.ofNanos(nanos(expected)), pause, step.code());
    }

    private static Exception failure(CaseStep step) {
      Status.Code code = Status.Code.valueOf(step.code());
      if (code == Status.Code.OK) {
        return null;
      }
      Duration delay = step.retrySeconds() == 0 ? null : Duration.ofNanos(nanos(step.retrySeconds()));
      return new PointsmanException(code.toStatus(), delay);
    }

    private static Resume resumeOf(ResumeToken token) {
      return new Resume(token.getEpoch(), "" + token.getRevision());
    }

    private static long nanos(double seconds) {
      return Math.round(seconds * 1e9);
    }
  }
}
