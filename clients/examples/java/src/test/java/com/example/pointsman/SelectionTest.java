package com.example.pointsman;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.example.pointsman.v1.Traffic;
import com.example.pointsman.v1.TrafficSlice;
import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.protobuf.util.JsonFormat;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Runs selection_vectors.json, which every implementation of the rule is tested with. */
class SelectionTest {

  private record Vectors(List<Row> words, List<Case> cases) {}

  private record Row(String family, String stickyKey, List<String> words) {}

  private record Case(String name, String family, JsonElement traffic, List<String> active, List<Expected> selections) {}

  private record Expected(
      String stickyKey, String version, Selection.Rule rule, List<String> inactiveVersions, String error) {}

  private static Vectors vectors() throws IOException {
    try (var resource = SelectionTest.class.getResourceAsStream("/selection_vectors.json");
        var reader = new InputStreamReader(resource, StandardCharsets.UTF_8)) {
      Gson gson = new GsonBuilder().setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES).create();
      return gson.fromJson(reader, Vectors.class);
    }
  }

  @Test
  void words() throws IOException {
    assertFalse(vectors().words().isEmpty());
    for (Row row : vectors().words()) {
      Selection.Words words = new Selection.Words(row.family() + "\n" + row.stickyKey());
      for (String expected : row.words()) {
        assertEquals(expected, Long.toUnsignedString(words.next()), row.stickyKey());
      }
    }
  }

  @TestFactory
  Stream<DynamicTest> cases() throws IOException {
    List<Case> cases = vectors().cases();
    assertFalse(cases.isEmpty());
    return cases.stream().map(each -> DynamicTest.dynamicTest(each.name(), () -> run(each)));
  }

  private static void run(Case each) throws Exception {
    Traffic.Builder traffic = Traffic.newBuilder();
    boolean isSet = each.traffic().isJsonObject();
    if (isSet) {
      JsonFormat.parser().merge(each.traffic().toString(), traffic);
    }
    Traffic set = isSet ? traffic.build() : null;
    for (Expected expected : each.selections()) {
      if (expected.error() != null) {
        var refused =
            assertThrows(
                Selection.NothingChosen.class,
                () -> Selection.choose(each.family(), set, each.active(), expected.stickyKey()));
        assertEquals(expected.error(), refused.getMessage());
        continue;
      }
      assertEquals(
          new Selection.Choice(expected.version(), expected.rule(), expected.inactiveVersions()),
          Selection.choose(each.family(), set, each.active(), expected.stickyKey()),
          expected.stickyKey());
    }
  }

  @Test
  void withoutAStickyKeyTheChoiceIsRandom() throws Exception {
    Traffic.Builder traffic = Traffic.newBuilder();
    List<String> versions = List.of("v1", "v2");
    versions.forEach(each -> traffic.addSlices(TrafficSlice.newBuilder().setVersion(each).setSize(5_000)));
    Set<String> seen = new HashSet<>();
    for (int number = 0; number < 200; number++) {
      seen.add(Selection.choose("team-a/payments/prod", traffic.build(), versions, "").version());
    }
    assertEquals(Set.copyOf(versions), seen);
  }
}
